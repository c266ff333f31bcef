/* See button.h. ACPI's button driver shows each button as an input device. */
#include "init/button.h"

#include <fcntl.h>
#include <linux/input.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"

static bool has_power_key(int fd)
{
	unsigned char keys[KEY_POWER / 8 + 1] = { 0 };

	return ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 &&
	       keys[KEY_POWER / 8] & 1 << KEY_POWER % 8;
}

int buttons_open(struct buttons *buttons, int epoll, unsigned int tag)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = tag };

	for (int i = 0; i < 16 && buttons->n < BUTTONS_MAX; i++) {
		_cleanup_close_ int fd = -1;
		char path[32];

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 || !has_power_key(fd) ||
		    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
			continue;
		buttons->fds[buttons->n++] = steal_fd(&fd);
	}
	return buttons->n;
}

bool buttons_pressed(struct buttons *buttons)
{
	struct input_event event;
	bool pressed = false;

	for (int i = 0; i < buttons->n; i++)
		while (read(buttons->fds[i], &event, sizeof(event)) ==
		       (ssize_t)sizeof(event))
			if (event.type == EV_KEY && event.code == KEY_POWER &&
			    event.value)
				pressed = true;
	return pressed;
}
