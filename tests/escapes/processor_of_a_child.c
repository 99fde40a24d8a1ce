/* Takes more processor time than its limit, by a child in a session of its own.
 *
 * refused-by: cpu
 * needs: cpu
 * spec: {cpuCores: 0.1}
 * as: root
 * control: none, a busy machine may give it less by itself
 */

#include "escape.h"

#include <time.h>
#include <sys/resource.h>

int main(void) {
    pid_t child = fork();
    if (child == 0) {
        setsid();
        for (;;) {}
    }
    struct timespec second = {.tv_sec = 2};
    nanosleep(&second, NULL);
    kill(child, SIGKILL);
    struct rusage used;
    if (wait4(child, NULL, 0, &used) != child) broken("wait4");
    double seconds = used.ru_utime.tv_sec + used.ru_utime.tv_usec / 1e6 + used.ru_stime.tv_sec + used.ru_stime.tv_usec / 1e6;
    /* A tenth of two seconds and as much again; a machine that is busy gives less to anybody. */
    if (seconds > 0.45) { printf("%.2f s\n", seconds); escaped("processor time"); }
    errno = EDQUOT;
    refused("processor time");
}
