/** Checkpoints that openpi, LeRobot and transformers publish, as a command takes them. */
import { InputError } from '../engine/index.ts';
import { isPublic, type PublicOptions } from '../model/training/public-model.ts';
import { openPublicStart } from '../model/training/start.ts';
import { flag, text } from './options.ts';

/** Options of a published policy of openpi or LeRobot, which the option `named` names. */
export const publicOptions = (named: string) => ({
  'text-tokenizer': text(
    `folder with PaliGemma's tokenizer.json, for a --${named} of openpi or LeRobot, whose folders have none`,
    { needs: named },
  ),
  partial: flag(
    `goes on though a --${named} of openpi or LeRobot lacks tensors, which begin at random, or has others, which are left out`,
    { needs: named },
  ),
});

/** The published policy that a run begins from; undefined for other starts. */
export async function publicStart(from: string | null | undefined, options: PublicOptions) {
  if (from && (await isPublic(from))) return openPublicStart(from, options);
  const [first] = Object.entries({ 'text-tokenizer': options.textTokenizer, partial: options.partial }).filter(
    ([, own]) => own !== undefined,
  );
  if (first) throw new InputError(`--${first[0]}: for a --from of openpi or LeRobot alone; leave it out`);
}
