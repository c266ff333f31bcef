/* The power button: how QMP's system_powerdown arrives. */
#pragma once

#include <stdbool.h>

#define BUTTONS_MAX 4

struct buttons {
	int fds[BUTTONS_MAX];
	int n;
};

/**
 * buttons_open() - Open each input device that has a power key
 * @epoll, @tag:	Where to watch them, and as what
 *
 * Return: how many there are. Does not wait.
 */
int buttons_open(struct buttons *buttons, int epoll, unsigned int tag);

/* Whether one of them was pressed since the last call. Never blocks. */
bool buttons_pressed(struct buttons *buttons);
