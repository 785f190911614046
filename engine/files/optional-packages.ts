import { InputError } from './errors.ts';

/**
 * Loads large packages that few users need and that an installation may lack.
 *
 * @param names of the packages, separated by spaces
 * @param purpose of the packages, such as "reading HDF5 files"
 * @param load `() => import('NAME')` with a literal name, so that a bundler finds it
 * @throws InputError if a package is not installed
 */
export async function optionalPackages<T>(names: string, purpose: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const missing = names.split(' ').some((name) => message.includes(`'${name}'`));
    if (code !== 'ERR_MODULE_NOT_FOUND' || !missing) throw error;
    throw new InputError(`${purpose} needs a package that is not installed: npm install ${names}`);
  }
}
