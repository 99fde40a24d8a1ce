/* Watches what happens in the kernel and in others.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, machines may have no counters
 */

#include "escape.h"

#include <linux/perf_event.h>

int main(void) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_TASK_CLOCK};
    judge(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0), "perf_event_open");
}
