/** Checks that the parts of a checkpoint's settings, which fit the schema, also fit each other and the file's tensors. */
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { SafetensorsFile } from '../../engine/index.ts';
import type { Edge } from '../../kernels/index.ts';
import { type ModelConfiguration, tableOf } from '../architecture/configuration.ts';
import { parametersOf } from '../architecture/parameters.ts';
import { checkSlotMap } from '../data/index.ts';
import { Encoding, type EncodingSettings } from '../policy/encoding.ts';
import { configurationOf, type System } from '../systems/index.ts';
import type { CheckpointSettings } from './checkpoint-schema.ts';

/** @throws InputError with one line that names the file and the part that does not fit */
export function expectFitting(file: SafetensorsFile, { configuration, encoding }: CheckpointSettings): void {
  for (const [part, check] of [
    ['configuration', () => checkConfiguration(configuration)],
    ['encoding', () => checkEncoding(encoding, configuration)],
  ] as const)
    try {
      check();
    } catch (error) {
      throw new InputError(`${file.name}: damaged: the checkpoint's metadata: "settings.${part}": ${reasonOf(error)}`);
    }
  for (const { name, shape } of parametersOf(configuration)) file.entry(name, { shape });
}

function expect(fits: boolean, complaint: string): void {
  if (!fits) throw new Error(complaint);
}

function checkConfiguration(configuration: ModelConfiguration): void {
  const { heads, kvHeads, headDimension, vision, expert, losses, blocks } = configuration;
  expect(heads % kvHeads === 0, `${heads} heads cannot share ${kvHeads} kvHeads evenly`);
  expect(headDimension % 2 === 0, `headDimension is ${headDimension}, not an even number`);
  expect(!vision || vision.width % vision.heads === 0, 'the width of vision is not a multiple of its heads');
  expect(!expert || (expert.width >= 4 && expert.width % 2 === 0), 'the width of expert is not an even number from 4');
  expect(losses.token || losses.flow, 'losses has neither a token loss nor a flow loss');
  const again = remade(configuration);
  for (const part of ['blocks', 'edges', 'losses'] as const)
    expect(JSON.stringify(again[part]) === JSON.stringify(configuration[part]), `${part} and the rest do not agree`);
  tableOf(
    configuration,
    blocks.map(({ name }) => name),
  );
}

/** The configuration that `configurationOf` makes for the same sizes, attention and losses. */
function remade(configuration: ModelConfiguration): ModelConfiguration {
  const { backbone, expert, blocks, edges, losses } = configuration;
  const attention: Record<string, Record<string, Edge>> = {};
  for (const { query, key, edge } of edges) attention[query] = { ...attention[query], [key]: edge };
  const system: System = {
    name: '',
    description: '',
    tokens: losses.token ? 'fast' : null,
    expert: expert ? expert.time : null,
    state: blocks.some(({ name }) => name === 'state') ? 'expert' : 'text',
    attention,
    alpha: losses.alpha,
  };
  const lengthOf = (name: string) => blocks.find((block) => block.name === name)?.length ?? 0;
  return configurationOf(system, {
    ...configuration,
    expert: expert ?? backbone,
    languageTokens: lengthOf('language'),
    fastTokens: lengthOf('fast'),
  });
}

function checkEncoding(settings: EncodingSettings, configuration: ModelConfiguration): void {
  const { backbone, vision, losses, actionDimension, stateDimension } = configuration;
  const { statistics, robots = {}, cameras } = settings;
  const { vocabularySize } = new Encoding(settings);
  expect(
    vocabularySize === backbone.vocabulary,
    `a vocabulary of ${vocabularySize} ids, where the model has ${backbone.vocabulary}`,
  );
  const slots = vision?.cameras ?? 0;
  expect(cameras.length === slots, `cameras has ${cameras.length} names, where the model has ${slots} cameras`);
  expect((settings.actions !== null) === losses.token, 'an action tokenizer and a token loss need each other');
  expect(statistics !== null || Object.keys(robots).length > 0, 'no statistics of any robot');
  const expectDimensions = (own: number) =>
    expect(own === actionDimension, `${own} action dimensions, where the model has ${actionDimension}`);
  if (statistics) expectDimensions(statistics.actions.mean.length);
  const states = statistics?.states?.mean.length ?? 0;
  // The file of given statistics may have those of a state that the data lack.
  if (states > 0 && stateDimension > 0)
    expect(states === stateDimension, `${states} state dimensions, where the model has ${stateDimension}`);
  for (const [name, { slots, statistics }] of Object.entries(robots)) {
    expectDimensions(slots.width);
    const [actions, states] = [statistics.actions.mean.length, statistics.states?.mean.length ?? 0];
    checkSlotMap(slots, { name, actionDimension: actions, stateDimension: states });
  }
}
