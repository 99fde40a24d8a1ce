/* Opens the memory of the keeper.
 *
 * refused-by: undumpable
 * needs: any
 * spec: {}
 * as: user
 * control: none, it is no instance of a keeper
 */

#include "escape.h"

int main(void) {
    judge(open(proc_of("KEEPER", "mem"), O_RDWR), "open the keeper's memory");
}
