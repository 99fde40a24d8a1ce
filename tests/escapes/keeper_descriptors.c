/* Reads what descriptors the keeper has.
 *
 * refused-by: undumpable
 * needs: any
 * spec: {}
 * as: user
 * control: none, it is no instance of a keeper
 */

#include "escape.h"

int main(void) {
    char target[256];
    judge(readlink(proc_of("KEEPER", "fd/0"), target, sizeof target), "read a descriptor's link");
}
