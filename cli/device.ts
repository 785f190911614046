/** Options that choose and open the adapter of a command. */
import { flag, text } from './options.ts';

/** Everything that a program leaves lies in here, below the folder it was started in. */
export const WORK_FOLDER = '.insula';

export const deviceOptions = {
  adapter: text("part of an adapter's name, as 'insula devices' lists it; the system's first by default"),
  floor: flag("opens it with WebGPU's default limits and no features"),
  tuning: text("tuning file of 'insula bench --tune', in place of the one kept for this adapter"),
};
