#!/usr/bin/env node
// The command `insula`: cli/main.ts with the adapter that the set-up found.

import { launch } from './program.mjs';

launch('cli/main.ts', process.argv.slice(2));
