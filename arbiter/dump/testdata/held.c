/* Grows until its memory limit stops it, in a function that a debugger must
 * show, with threads and a variable that it must know. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int known_variable = 4242;

static void *sleeper(void *unused)
{
	for (;;)
		pause();
}

__attribute__((noinline)) static void innermost(int depth, volatile char *block, size_t size)
{
	if (depth > 0) {
		innermost(depth - 1, block, size);
		return;
	}
	for (size_t at = 0; at < size; at += 4096)
		block[at] = 1;
}

int main(void)
{
	size_t size = (size_t)1 << 30;
	pthread_t thread;

	for (int i = 0; i < 3; i++)
		pthread_create(&thread, NULL, sleeper, NULL);
	getchar();
	known_variable++;
	printf("{}\n");
	fflush(stdout);
	innermost(5, malloc(size), size);
	return 0;
}
