/** The settings of a run's parameters as rules of its model, and the check that each of them has an effect. */
import { InputError } from '../../engine/files/errors.ts';
import { nearest } from '../../engine/files/nearest.ts';
import { rankComplaint } from '../architecture/check.ts';
import type { ParameterRule } from '../architecture/configuration.ts';
import type { ModelParameter } from '../architecture/layers.ts';
import { Architecture } from '../architecture/model.ts';
import { groupsOf, matcherOf, withRules } from '../architecture/rules.ts';
import { configurationOf, systemNamed } from '../systems/index.ts';
import { loraOf, type RunSettings } from './run-settings.ts';
import { sayingSystem } from './subtask-fitting.ts';

interface OptionRule {
  /** The option as typed. */
  readonly option: string;
  readonly rule: ParameterRule;
}

/** Freezing comes after rates, because a frozen parameter has none. */
function optionRules({ freeze, rates, gates }: RunSettings): OptionRule[] {
  return [
    ...Object.entries(rates ?? {}).map(([match, rate]) => ({
      option: `--rates ${match}=${rate}`,
      rule: { match, rate },
    })),
    ...(freeze ?? []).map((match) => ({ option: `--freeze ${match}`, rule: { match, frozen: true } })),
    ...(gates === null ? [] : [{ option: `--gates ${gates}`, rule: { match: '*', gateBias: gates } }]),
  ];
}

export const rulesOf = (settings: RunSettings): ParameterRule[] => optionRules(settings).map(({ rule }) => rule);

/**
 * The names of the parameters depend on the system, the number of layers, and whether the data have images and a state; so this
 * needs no data that are read.
 *
 * @throws InputError if a setting matches no parameter or changes none, or if nothing is left to train
 */
export function expectRules(settings: RunSettings, data: { images: boolean; state: boolean }): void {
  const given = optionRules(settings);
  if (given.length === 0 && settings.lora === null) return;
  const { system, gates } = settings;
  const leave = 'leave it out';
  if (gates !== null && systemNamed(system).time !== 'adaptive')
    throw new InputError(`--gates: ${system} has no adaptive norms; ${leave}, or choose another --system`);
  const architecture = leastArchitecture(settings, data);
  const { parameters } = architecture;
  const freezing = given.flatMap(({ rule }) => (rule.frozen ? [rule] : []));
  expectAdapted(settings, architecture, freezing);
  for (const { option, rule } of given)
    if (!parameters.some(matcherOf(rule.match)))
      throw new InputError(
        `${option}: no group and no parameter has this name; ${nearest(rule.match, groupsOf(parameters))}`,
      );
  const rules = given.map(({ rule }) => rule);
  const whole = withRules(parameters, rules);
  if (whole.every(({ frozen }) => frozen)) throw new InputError('--freeze: nothing is left to train; freeze less');
  const effect = effectOf(whole);
  for (const [i, { option, rule }] of given.entries()) {
    if (effectOf(withRules(parameters, rules.toSpliced(i, 1))) !== effect) continue;
    const isFrozen = whole.filter(matcherOf(rule.match)).every(({ frozen }) => frozen);
    const reason = isFrozen && !rule.frozen ? '--freeze keeps these parameters' : 'others match the same parameters';
    throw new InputError(`${option} changes nothing, because ${reason}; ${leave}`);
  }
}

/**
 * The architecture may have any rank.
 *
 * @throws InputError if the rank is too large, or if an expert that is adapted would have nothing to train
 */
export function expectAdapted(
  { system, lora, loraOn = null }: Pick<RunSettings, 'system'> & Partial<Pick<RunSettings, 'lora' | 'loraOn'>>,
  { configuration, parameters }: Architecture,
  freezing: readonly ParameterRule[] = [],
): void {
  if (lora == null) return;
  const adapters = parameters.filter(({ adapter }) => adapter);
  const ofRank = rankComplaint(adapters, lora);
  if (ofRank) throw new InputError(`--lora ${lora}: ${ofRank}`);
  const whole = withRules(
    parameters,
    freezing.filter(({ match }) => parameters.some(matcherOf(match))),
  );
  const isKept = (own: readonly ModelParameter[], expert: string) =>
    own.every(({ group, frozen, adapter }) => group !== expert || !adapter || frozen);
  const kept = groupsOf(adapters).find((expert) => isKept(whole, expert));
  if (kept === undefined) return;
  const reason = isKept(parameters, kept)
    ? `${system} freezes ${kept}`
    : `--freeze keeps the low-rank matrices of ${kept} too`;
  const others = Object.keys(configuration.experts).filter(
    (name) => name !== kept && whole.some(({ group, frozen }) => group === name && !frozen),
  );
  const advice = others.length > 0 ? `give --lora-on ${others.join(',')}` : 'leave one of them out';
  throw new InputError(`--lora${loraOn ? `-on ${loraOn.join(',')}` : ` ${lora}`}: ${reason}: ${advice}`);
}

/** @throws InputError if `loraOn` names another expert, or one twice */
export function expectExperts(
  { system, loraOn }: Pick<RunSettings, 'system' | 'loraOn'>,
  experts: readonly string[],
): void {
  const wrong = loraOn?.find((name, i) => !experts.includes(name) || loraOn.indexOf(name) !== i);
  if (wrong === undefined) return;
  throw new InputError(
    experts.includes(wrong)
      ? `--lora-on ${loraOn!.join(',')}: ${wrong} is there twice; name it once`
      : `--lora-on ${wrong}: no expert of ${system} has this name; there are ${experts.join(', ')}`,
  );
}

/** The parameters of the system at the least sizes, which their names do not depend on. */
export const parametersOf = (settings: RunSettings, data: { images: boolean; state: boolean }) =>
  leastArchitecture(settings, data).parameters;

function leastArchitecture(settings: RunSettings, { images, state }: { images: boolean; state: boolean }) {
  const { system, preset, subtask, lora } = settings;
  const { image, ...vision } = preset.vision;
  const sizes = { vocabulary: 1, promptTokens: 1, targetTokens: 1, horizon: 1, actionDimension: 2 };
  const named = systemNamed(system);
  const saying = subtask ? sayingSystem(named, { tokens: 1, dimension: subtask === 'words' ? 0 : 4 }) : named;
  const experts = Object.keys(
    configurationOf(saying, { ...preset, ...sizes, vision: null, stateDimension: 1 }).experts,
  );
  expectExperts(settings, experts);
  const configuration = configurationOf(saying, {
    ...preset,
    ...sizes,
    lora: loraOf({ ...settings, lora: lora && 1 }),
    vision: images ? { ...vision, imageHeight: image, imageWidth: image, cameras: 1 } : null,
    stateDimension: state ? 1 : 0,
  });
  return new Architecture(configuration);
}

/** The settings of all parameters as one text; a frozen parameter has no rate. */
const effectOf = (parameters: readonly ModelParameter[]): string =>
  JSON.stringify(parameters.map(({ frozen, rate, gateBias }) => [frozen ?? rate, gateBias]));
