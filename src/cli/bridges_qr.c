#include <errno.h>
#include <qrencode.h>
#include <string.h>

#include "cli/bridges.h"

/* Modules of white around a code (ISO/IEC 18004: at least 4). */
#define QUIET 4

/* Outside of the code is white. */
static bool is_dark(const QRcode *code, int x, int y)
{
	if (x < 0 || y < 0 || x >= code->width || y >= code->width)
		return false;
	return code->data[y * code->width + x] & 1;
}

int cli_bridges_print_qr(const char *text)
{
	/* By upper and lower half: what is drawn is the white. */
	static const char *const halves[2][2] = {
		{ "\xe2\x96\x88", "\xe2\x96\x80" }, /* full, upper */
		{ "\xe2\x96\x84", " " },            /* lower, none */
	};
	QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);

	if (!code)
		return cli_fail(EXIT_CODE_FAILED,
				"the bridge line does not fit into a QR code: "
				"%s",
				strerror(errno));
	for (int y = -QUIET; y < code->width + QUIET; y += 2) {
		for (int x = -QUIET; x < code->width + QUIET; x++)
			fputs(halves[is_dark(code, x, y)]
				    [is_dark(code, x, y + 1)],
			      stdout);
		putchar('\n');
	}
	QRcode_free(code);
	return EXIT_CODE_OK;
}
