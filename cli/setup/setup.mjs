// The set-up of a fresh clone, before `npm start` and `npm test`. It says nothing where there is nothing to do.

import './node-version.mjs';
import { prepare } from './prepare.mjs';

prepare();
