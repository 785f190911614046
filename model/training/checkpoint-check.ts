/** Checks that the parts of a checkpoint's settings, which fit the schema, also fit each other and the file's tensors. */
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { SafetensorsFile } from '../../engine/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture } from '../architecture/model.ts';
import { checkSlotMap } from '../data/index.ts';
import { Encoding, type EncodingSettings } from '../policy/encoding.ts';
import type { CheckpointSettings } from './checkpoint-schema.ts';

/** @throws InputError with one line that names the file and the part that does not fit */
export function expectFitting(file: SafetensorsFile, { configuration, encoding }: CheckpointSettings): void {
  for (const [part, check] of [
    ['configuration', () => new Architecture(configuration)],
    ['encoding', () => checkEncoding(encoding, configuration)],
  ] as const)
    try {
      check();
    } catch (error) {
      throw new InputError(`${file.name}: damaged: the checkpoint's metadata: "settings.${part}": ${reasonOf(error)}`);
    }
  for (const { name, shape } of new Architecture(configuration).parameters) file.entry(name, { shape });
}

function expect(fits: boolean, complaint: string): void {
  if (!fits) throw new Error(complaint);
}

function checkEncoding(settings: EncodingSettings, configuration: ModelConfiguration): void {
  const { vocabulary, vision, blocks, actionDimension, stateDimension } = configuration;
  const { statistics, robots = {}, cameras } = settings;
  const { vocabularySize } = new Encoding(settings);
  expect(vocabularySize === vocabulary, `a vocabulary of ${vocabularySize} ids; the model has ${vocabulary}`);
  const slots = vision?.cameras ?? 0;
  expect(cameras.length === slots, `cameras has ${cameras.length} names; the model has ${slots} cameras`);
  const hasTarget = blocks.some(({ input }) => input === 'target');
  expect(settings.actions === null || hasTarget, 'an action tokenizer, and no block of tokens to be predicted');
  expect(statistics !== null || Object.keys(robots).length > 0, 'no statistics of any robot');
  const expectDimensions = (own: number) =>
    expect(own === actionDimension, `${own} action dimensions; the model has ${actionDimension}`);
  if (statistics) expectDimensions(statistics.actions.mean.length);
  const states = statistics?.states?.mean.length ?? 0;
  // The file of given statistics may have those of a state that the data lack.
  if (states > 0 && stateDimension > 0)
    expect(states === stateDimension, `${states} state dimensions; the model has ${stateDimension}`);
  for (const [name, { slots, statistics }] of Object.entries(robots)) {
    expectDimensions(slots.width);
    const [actions, states] = [statistics.actions.mean.length, statistics.states?.mean.length ?? 0];
    checkSlotMap(slots, { name, actionDimension: actions, stateDimension: states });
  }
}
