/* Sees a network interface beside the loopback.
 *
 * refused-by: network namespace
 * needs: any
 * spec: {nonet: true}
 * control: none, the host may have none either
 */

#include "escape.h"

#include <net/if.h>

int main(void) {
    struct if_nameindex *names = if_nameindex();
    if (names == NULL) broken("if_nameindex");
    for (int i = 0; names[i].if_index != 0; i++)
        if (strcmp(names[i].if_name, "lo") != 0) escaped(names[i].if_name);
    errno = ENODEV;
    refused("another interface");
}
