package jvm

import (
	"fmt"
	"sort"
	"strings"
)

func (w *walker) heap() Heap {
	h := Heap{Bytes: w.bytes, Objects: w.objects}
	for id, c := range w.count {
		c.Name = w.className(id)
		h.Classes = append(h.Classes, *c)
	}
	sort.Slice(h.Classes, func(i, k int) bool {
		a, b := h.Classes[i], h.Classes[k]
		if a.Bytes != b.Bytes {
			return a.Bytes > b.Bytes
		}
		return a.Name < b.Name
	})
	return h
}

var primitives = map[string]string{
	"Z": "boolean", "C": "char", "F": "float", "D": "double", "B": "byte", "S": "short", "I": "int", "J": "long",
}

var primitiveTypes = map[uint64]string{4: "Z", 5: "C", 6: "F", 7: "D", 8: "B", 9: "S", 10: "I", 11: "J"}

func (w *walker) className(id uint64) string {
	if p, ok := primitiveTypes[id]; ok {
		return primitives[p] + "[]"
	}
	name, ok := w.names[w.classes[id]]
	if !ok {
		return fmt.Sprintf("class 0x%x", id)
	}
	return javaName(name)
}

// javaName turns "[[Ljava/lang/String;" into "java.lang.String[][]".
func javaName(name string) string {
	elem := strings.TrimLeft(name, "[")
	dims := len(name) - len(elem)
	if p, ok := primitives[elem]; ok && dims > 0 {
		elem = p
	} else if dims > 0 {
		elem = strings.TrimSuffix(strings.TrimPrefix(elem, "L"), ";")
	}
	return strings.ReplaceAll(elem, "/", ".") + strings.Repeat("[]", min(dims, 255))
}
