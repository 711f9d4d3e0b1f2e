#define MAIN 1
