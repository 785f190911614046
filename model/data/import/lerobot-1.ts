import { InputError } from '../../../engine/files/errors.ts';
import type { Importer } from './source.ts';

/** LeRobot 1 kept a data set in Arrow files, which are not read: opening one says how to convert it. */
export const leRobot1Importer: Importer = {
  format: 'LeRobot 1',
  version: 1,
  recognises: async (folder) => (await folder.list()).some((name) => name.endsWith('.arrow')),
  async open(folder) {
    const file = (await folder.list()).find((name) => name.endsWith('.arrow'));
    throw new InputError(
      `${folder.name}: Arrow files such as ${file}, of LeRobot 1, are not read: convert the set with convert_dataset_v1_to_v2.py of LeRobot's releases of 2025, and open the folder with meta/info.json`,
    );
  },
};
