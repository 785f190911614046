/** Options that choose the adapter. */
import { flag, text } from './options.ts';

/** Folder of runs and caches, in the working directory. */
export const WORK_FOLDER = '.insula';
export const CACHE_FOLDER = `${WORK_FOLDER}/cache`;

export const deviceOptions = {
  adapter: text("part of an adapter's name, as 'insula devices' lists it; the system's first by default"),
  floor: flag("opens it with WebGPU's default limits and no features"),
  tuning: text("tuning file of 'insula bench --tune', instead of this adapter's own"),
};

export const experimentalOption = flag(
  'takes subgroup matrices, a feature of Dawn that is no standard yet: products whose operands are both f16 have variants with them',
  { excludes: 'floor' },
);
