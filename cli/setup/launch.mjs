// Runs a TypeScript file of this repository, or its test runner, with the adapter that the set-up found:
//   node cli/setup/launch.mjs cli/main.ts train --steps 100
//   node cli/setup/launch.mjs vitest run

import './node-version.mjs';
import { launch } from './program.mjs';

const [program, ...options] = process.argv.slice(2);
launch(program, options);
