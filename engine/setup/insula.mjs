#!/usr/bin/env node
// The command `insula`: cli.ts with the adapter that the set-up found.

import { launch } from './program.mjs';

launch('cli.ts', process.argv.slice(2));
