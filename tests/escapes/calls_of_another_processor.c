/* Makes a call in the manner of 32-bit programs, whose numbers are others.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, kernels may not know them
 */

#include "escape.h"

int main(void) {
#ifdef __x86_64__
    /* 310 is unshare there; the flag asks for a user namespace. */
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(310), "b"(0x10000000) : "memory");
    errno = result < 0 ? -result : 0;
    judge(result, "unshare by int 0x80");
#else
    not_here("a processor without such calls");
#endif
}
