/* Starts threads without end, under the limit that everybody has.
 *
 * refused-by: pids
 * needs: pids
 * spec: {}
 * as: root
 * control: none, it would harm the host
 */

#include "escape.h"

#include <pthread.h>

static void *wait_for_ever(void *nothing) { for (;;) pause(); return nothing; }

int main(void) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 0; i < 6000; i++) {
        pthread_t thread;
        int error = pthread_create(&thread, &small, wait_for_ever, NULL);
        if (error != 0) { errno = error; refused("pthread_create"); }
    }
    escaped("6000 threads");
}
