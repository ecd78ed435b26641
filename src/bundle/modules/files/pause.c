/* Holds a pod's namespaces: sleeps until it is told to stop, and reaps orphans where it is process 1. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int sig) {
  (void)sig;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

static void stop(int sig) {
  (void)sig;
  _exit(0);
}

int main(int argc, char **argv) {
  struct sigaction act = {.sa_flags = SA_NOCLDSTOP};
  if (argc > 1 && !strcmp(argv[1], "-v")) {
    puts("pause");
    return 0;
  }
  act.sa_handler = reap;
  sigaction(SIGCHLD, &act, NULL);
  act.sa_handler = stop;
  sigaction(SIGINT, &act, NULL);
  sigaction(SIGTERM, &act, NULL);
  for (;;) {
    pause();
  }
}
