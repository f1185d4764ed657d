#!/bin/busybox sh
# The guest's pid 1: mount, run /job.sh, tell its status, power off.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /data /root /etc /usr/bin /sbin /src
/bin/busybox --install -s /bin
export PATH=/src/bin:/bin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
echo 'root:x:0:' >/etc/group
echo '127.0.0.1 localhost' >/etc/hosts
hostname guest
ip link set lo up

v1=
for word in $(cat /proc/cmdline); do
	case $word in
	guest_v1) v1=1 ;;
	guest_kernel=*) export GUEST_KERNEL=${word#guest_kernel=} ;;
	esac
done
if [ "$v1" ]; then
	mount -t tmpfs cgroup /sys/fs/cgroup
	for c in memory freezer cpu cpuacct pids; do
		mkdir "/sys/fs/cgroup/$c"
		mount -t cgroup -o "$c" "$c" "/sys/fs/cgroup/$c" || echo "guest: no cgroup v1 $c"
	done
	# Since 5.11 this is always so.
	echo 1 >/sys/fs/cgroup/memory/memory.use_hierarchy 2>/dev/null
else
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	# Not cpuset: its first and last cgroup patch the page allocator's code, which
	# an emulated processor may be in the middle of (seen: a panic on 6.12).
	for c in memory cpu io pids; do
		echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null
	done
fi

# NVMe devices are found asynchronously, and so in any order: the serial number
# tells which is which.
disk() {
	for d in /sys/block/nvme*; do
		[ "$(tr -d ' ' 2>/dev/null <"$d/device/serial")" = "$1" ] && echo "/dev/${d##*/}" && return
	done
}
n=0
while { [ ! -b "$(disk data)" ] || [ ! -b "$(disk swap)" ]; } && [ $n -lt 600 ]; do
	n=$((n + 1))
	usleep 100000
done
mount -t ext4 "$(disk data)" /data || echo 'guest: no /data'
mkdir -m 1777 -p /data/tmp /var/tmp
mount --bind /data/tmp /var/tmp
export TMPDIR=/data GUEST_SWAP="$(disk swap)"
mkswap "$GUEST_SWAP" >/dev/null || unset GUEST_SWAP

# The firmware's last line has no end.
echo
dmesg -c >/dev/null
cd /src
sh /job.sh
status=$?
if [ $status -ne 0 ]; then
	echo "guest: the kernel's last words:"
	dmesg | grep -E "Killed process|oom-kill:|invoked oom|\] \[ "; dmesg | tail -n 60
fi
# A panic must still be seen; whatever is left of the job's output must not.
echo "guest-exit: $status"
poweroff -f
