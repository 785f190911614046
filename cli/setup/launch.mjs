// Runs a TypeScript file of this repository, or its test runner, with the adapter that the set-up found:
//   node cli/setup/launch.mjs cli/main.ts train --steps 100
//   node cli/setup/launch.mjs vitest run

import './node-version.mjs';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { launch, root } from './program.mjs';

const [program, ...options] = process.argv.slice(2);
if (program === undefined || (program !== 'vitest' && !existsSync(resolve(root, program)))) {
  const why = program === undefined ? 'no file is named' : `there is no file ${program}`;
  console.error(`${why}: node cli/setup/launch.mjs FILE.ts [options]`);
  process.exitCode = 1;
} else launch(program, options);
