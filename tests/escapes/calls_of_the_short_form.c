/* Makes a call in the manner of x32 programs.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, kernels may not know them
 */

#include "escape.h"

int main(void) {
#ifdef __x86_64__
    judge(syscall(0x40000000 | 272 /* unshare */, 0x10000000), "unshare of x32");
#else
    not_here("a processor without such calls");
#endif
}
