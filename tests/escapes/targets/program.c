/* What the cases try to run: it ends well at once. */

int main(void) {
    return 0;
}
