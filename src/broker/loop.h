/* The broker's event loop: engine, spawner, signals, the VM, the network. */
#pragma once

#include "broker/broker.h"

/**
 * loop_run() - Start the engine and serve it until the end
 * @b:		Ready but for send_event and notify, which are set here
 * @signal_fd:	signalfd with SIGTERM, SIGINT, SIGHUP and SIGQUIT
 *
 * Return: enum exit_code. Unless b->unblocked or nothing was ever blocked, the
 * block is still up.
 */
int loop_run(struct broker *b, int signal_fd);
