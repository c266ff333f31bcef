/* Looking names up: a program of its own, which PID 1 starts without
 * privileges. */
#pragma once

#define RESOLVER_WORD "resolver" /* argv[1] */
#define RESOLVER_IPV6 "-6"       /* IPv6 addresses are looked up, too */

/**
 * resolver_main() - Ask resolvers for names, say what they answer
 * @argv:	RESOLVER_IPV6 or not, addresses of resolvers, "--", host names
 *
 * Writes a line for each name: "ok NAME SECONDS ADDRESS [ADDRESS ...]" or "no
 * NAME REASON", where SECONDS is how long it may be kept. Return: exit status
 */
int resolver_main(int argc, char **argv);
