// Runs a TypeScript file of this repository, or its test runner, with the adapter that the set-up found:
//   node engine/setup/launch.mjs cli.ts train --steps 100
//   node engine/setup/launch.mjs vitest run

import { launch } from './program.mjs';

const [program, ...options] = process.argv.slice(2);
launch(program, options);
