// Loaded into the program that launch.mjs starts. The program runs in a session of its own, out of reach of what ends the
// launcher's process group; when the launcher is gone without a word, it asks itself to end, as a SIGTERM would.

import { isMainThread } from 'node:worker_threads';

const launcher = process.ppid;

function check() {
  if (process.ppid === launcher) return;
  clearInterval(timer);
  process.kill(process.pid, 'SIGTERM');
}

const timer = isMainThread ? setInterval(check, 1000).unref() : undefined;
