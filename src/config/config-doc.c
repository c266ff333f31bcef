/* Prints the key list of torvm.json(5): config-doc man|markdown */
#include <stdio.h>
#include <string.h>

#include "config/config.h"

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "man"))
		config_print_doc(stdout, CONFIG_DOC_MAN);
	else if (argc == 2 && !strcmp(argv[1], "markdown"))
		config_print_doc(stdout, CONFIG_DOC_MARKDOWN);
	else
		return 2;
	return fflush(stdout) != 0;
}
