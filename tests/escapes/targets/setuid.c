/* Belongs to root and has the set-user-ID bit: ends well if that made it root. */

#include <unistd.h>

int main(void) {
    return geteuid() != 0;
}
