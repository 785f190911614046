/** Checks that an encoding, which fits the schema, also fits the model of its file. */
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { checkSlotMap } from '../data/index.ts';
import { Encoding, type EncodingSettings } from '../policy/encoding.ts';

function expect(fits: boolean, complaint: string): void {
  if (!fits) throw new Error(complaint);
}

/** @throws Error if the encoding has other token ids or cameras than the model */
export function checkTokens(settings: EncodingSettings, { vocabulary, vision, blocks }: ModelConfiguration): void {
  const { vocabularySize } = new Encoding(settings);
  expect(vocabularySize === vocabulary, `a vocabulary of ${vocabularySize} ids; the model has ${vocabulary}`);
  const [names, slots] = [settings.cameras.length, vision?.cameras ?? 0];
  expect(names === slots, `cameras has ${names} names; the model has ${slots} cameras`);
  const hasTarget = blocks.some(({ input }) => input === 'target');
  expect(settings.actions === null || hasTarget, 'an action tokenizer, and no block of tokens to be predicted');
}

/** @throws Error if the encoding of a policy does not fit its model */
export function checkEncoding(settings: EncodingSettings, configuration: ModelConfiguration): void {
  checkTokens(settings, configuration);
  const { actionDimension, stateDimension } = configuration;
  const { statistics, relative, robots = {} } = settings;
  expect(statistics !== null || Object.keys(robots).length > 0, 'no statistics of any robot');
  const expectDimensions = (own: number) =>
    expect(own === actionDimension, `${own} action dimensions; the model has ${actionDimension}`);
  if (statistics) expectDimensions(statistics.actions.mean.length);
  if (relative) expectDimensions(relative.length);
  const states = statistics?.states?.mean.length ?? 0;
  const widest = 1 + (relative?.lastIndexOf(true) ?? -1);
  expect(widest <= states, `actions relative to ${widest} dimensions of a state that has ${states}`);
  // The file of given statistics may have those of a state that the data lack.
  if (states > 0 && stateDimension > 0)
    expect(states === stateDimension, `${states} state dimensions; the model has ${stateDimension}`);
  for (const [name, { slots, statistics }] of Object.entries(robots)) {
    expectDimensions(slots.width);
    const [actions, states] = [statistics.actions.mean.length, statistics.states?.mean.length ?? 0];
    checkSlotMap(slots, { name, actionDimension: actions, stateDimension: states });
  }
}
