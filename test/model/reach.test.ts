import { describe, expect, test } from 'vitest';
import { edge, full, insulated, none } from '../../kernels/index.ts';
import { Architecture } from '../../model/architecture/model.ts';
import { objectivesOf } from '../../model/architecture/objectives/index.ts';
import { groupsNotReached, groupsReached } from '../../model/architecture/reach.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { manyObjectives } from '../support/many-objectives.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const expected: Record<string, Record<string, string[]>> = {
  'knowledge-insulation': { token: ['backbone', 'vision'], flow: ['expert'] },
  'joint-training': { token: ['backbone', 'vision'], flow: ['backbone', 'expert', 'vision'] },
  'pi0-fast': { token: ['backbone', 'vision'] },
  pi0: { flow: ['backbone', 'expert', 'vision'] },
  pi05: { flow: ['backbone', 'expert', 'vision'] },
};

test.each(Object.keys(expected))('the groups that each loss of %s reaches', (name) => {
  const configuration = configurationOf(systemNamed(name), tinySizes);
  const reached = objectivesOf(configuration).map(({ name, blocks }) => [
    name,
    [...groupsReached(configuration, blocks)].sort(),
  ]);
  expect(Object.fromEntries(reached)).toEqual(expected[name]);
});

test('a head reaches the tower that it reads, or what a block attends to in the layers before', () => {
  const reached = objectivesOf(manyObjectives).map(({ name, blocks, reads = blocks }) => [
    name,
    [...groupsReached(manyObjectives, reads)].sort(),
  ]);
  expect(Object.fromEntries(reached)).toMatchObject({
    depth: ['vision'],
    patch: ['vision'],
    entering: ['backbone', 'vision'],
    goal: ['backbone', 'vision'],
  });
});

test('a group that is not reached is cut off, or is not read at all', () => {
  const configuration = configurationOf(systemNamed('knowledge-insulation'), tinySizes);
  expect(groupsNotReached(configuration, ['action'])).toEqual([
    { group: 'vision', reason: 'cut by the table' },
    { group: 'backbone', reason: 'cut by the table' },
  ]);
  expect(groupsNotReached(configuration, ['language', 'target'])).toEqual([
    { group: 'expert', reason: 'not read by language, target' },
  ]);
});

describe('along a chain of blocks a, b, c with weights of their own', () => {
  const block = (name: string) => ({ name, weights: name.toUpperCase(), input: 'prompt' });
  const chain = (first: typeof full, second: typeof full) => ({
    vision: null,
    blocks: ['a', 'b', 'c'].map(block),
    edges: [
      { query: 'a', key: 'b', edge: first },
      { query: 'b', key: 'c', edge: second },
      { query: 'c', key: 'c', edge: full },
    ],
  });
  const keysOnly = edge({ mask: 'full', stopValue: true });
  const valuesOnly = edge({ mask: 'causal', stopKey: true });

  test.each([
    ['everything', full, full, ['A', 'B', 'C']],
    ['what is read by keys or by values alone', keysOnly, valuesOnly, ['A', 'B', 'C']],
    ['nothing behind the second edge', full, insulated, ['A', 'B']],
    ['nothing behind the first edge', insulated, full, ['A']],
    ['nothing that is masked', none, full, ['A']],
  ])('the gradient of a reaches %s', (_, first, second, groups) => {
    expect([...groupsReached(chain(first, second), ['a'])]).toEqual(groups);
  });

  test('the gradient never runs from keys to queries', () => {
    expect([...groupsReached(chain(full, full), ['c'])]).toEqual(['C']);
  });
});

test('the projection of several towers is a group of its own, which stays trainable where one of them is frozen', () => {
  const system = { ...systemNamed('knowledge-insulation'), towers: ['frozen', 'trained'] };
  const rules = [{ match: 'frozen', frozen: true }];
  const configuration = configurationOf({ ...system, rules }, tinySizes);
  const { parameters } = new Architecture(configuration);
  const projection = parameters.filter(({ group }) => group === 'projector');
  expect(projection.map(({ shape, frozen = false }) => [shape, frozen])).toEqual([
    [[32, 64], false],
    [[32], false],
  ]);
  expect([...groupsReached(configuration, ['target'])].sort()).toEqual(['backbone', 'frozen', 'projector', 'trained']);
  expect([...groupsReached(configuration, ['frozen'])]).toEqual(['frozen']);
  const single = new Architecture(configurationOf(systemNamed('pi0'), tinySizes)).parameters;
  expect(single.find(({ name }) => name.includes('multi_modal_projector'))!.group).toBe('vision');
});
