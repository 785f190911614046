import { InputError } from './errors.ts';

/**
 * Loads packages that may have been left out when Insula was installed, because few need them and they are large.
 *
 * @param names with spaces between
 * @param purpose what they are for: "reading HDF5 files"
 * @param load `() => import('NAME')`, with the name spelled out, so that a bundler finds it
 * @throws InputError where one is not installed
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
