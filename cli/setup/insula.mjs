#!/usr/bin/env node
// The command `insula`. In the repository the launcher lies beside this file; in the package it lies in dist/.

import './node-version.mjs';
import { existsSync } from 'node:fs';

const sources = new URL('command.mjs', import.meta.url);
const compiled = new URL('../../dist/cli/setup/command.mjs', import.meta.url);
const { runCommand } = await import((existsSync(sources) ? sources : compiled).href);
runCommand(process.argv.slice(2));
