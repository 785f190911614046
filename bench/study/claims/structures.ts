/** Claims of RoboVLMs (arXiv 2412.14058) and GenVLA (arXiv 2509.11417). */
import type { Claim } from './claim.ts';

const [RATE, ERROR] = [0.1, 0.05];
const error = { measure: 'action error', margin: ERROR } as const;
const success = { measure: 'success', margin: RATE } as const;
const changed = { measure: 'success, changed pictures', margin: RATE } as const;

export const structureClaims: readonly Claim[] = [
  {
    ...{ number: '12', name: 'history', source: 'arXiv 2412.14058, table III' },
    says: 'Continuous actions are better than discrete ones, a history than none, and a policy head than a history in the sequence.',
    here: 'Single tasks in place of chains of five, so that the error of actions stands for the length of a chain. None of the four sees the state. Windows have three observations in place of sixteen. Discrete actions are decoded, and the others trained on this very error, which favours them.',
    tests: [
      { arms: ['one-step-continuous', 'one-step-discrete'], ...error, says: 'lower', part: 'continuous actions' },
      { arms: ['policy-head', 'one-step-continuous'], ...error, says: 'lower', part: 'a history' },
      { arms: ['policy-head', 'interleaved'], ...error, says: 'lower', part: 'a policy head' },
      { arms: ['policy-head', 'one-step-continuous'], measure: 'stages', margin: RATE, says: 'higher' },
    ],
  },
  {
    ...{ number: '13', name: 'data-efficiency', source: 'arXiv 2412.14058, figure 9 and table IV' },
    says: 'The policy head needs fewer data than a history in the sequence.',
    here: 'A quarter of the demonstrations, 100, in place of a tenth; no unseen scene beside the held-out episodes, of which there are a quarter too. 300 steps draw 4,800 chunks: about one pass over 100 demonstrations.',
    tests: [
      { arms: ['policy-head-few', 'interleaved-few'], ...error, says: 'lower', part: 'less error' },
      { arms: ['policy-head-few', 'policy-head'], ...error, says: 'alike' },
    ],
  },
  {
    ...{ number: '14', name: 'embodiments', source: 'arXiv 2412.14058, figure 10' },
    says: 'Pretraining on other robots alone does not beat data of the own robot, and helps before them.',
    here: 'The built-in world has one robot, and data of other robots have no closed loop here.',
    tests: [],
  },
  {
    ...{ number: '15', name: 'genvla', source: 'arXiv 2509.11417, table II' },
    says: 'A frozen second tower (D), strings (S) and co-training (C) each help, and S with C much more than either.',
    here: 'On pi0-FAST with bin tokens of two actions, the prefix mask of the start and places said first, for 900 steps: with the causal mask of OpenVLA the start forgets what it knew, and after 300 steps a pilot (seed 100) succeeded in none of 50 scenes, with an action error above that of the best constant chunk.',
    tests: [
      { arms: ['generalist-sc-places', 'generalist-c-places'], ...success, says: 'higher', part: 'S beside C' },
      { arms: ['generalist-sc-places', 'generalist-s-places'], ...success, says: 'higher', part: 'C beside S' },
      { arms: ['generalist-d-places', 'generalist-places'], ...success, says: 'higher', part: 'D' },
      { arms: ['generalist-s-places', 'generalist-places'], ...success, says: 'higher', part: 'S' },
      { arms: ['generalist-c-places', 'generalist-places'], ...success, says: 'higher', part: 'C' },
      { arms: ['generalist-sc-places', 'generalist-c-places'], ...error, says: 'lower' },
      { arms: ['generalist-s-places', 'generalist-places'], measure: 'malformed', margin: RATE, says: 'alike' },
    ],
  },
  {
    ...{ number: '16', name: 'dual-encoder', source: 'arXiv 2509.11417, tables III and IV' },
    firstSeed: 3,
    limit: 'with places, which the start says in these scenes too',
    says: 'A frozen second tower pays off in changed scenes, not in those of training.',
    here: "On knowledge insulation with places and co-training, which acts within few steps. Changed pictures: masked ground, other tables, checks, side light, distractors; the scenes of all together. Without S. The start's pretraining varied tables, floors and light; it points at 91 to 98 % of objects in these scenes.",
    tests: [
      {
        arms: ['insulation-dual-questions-places', 'insulation-questions-places'],
        ...changed,
        says: 'higher',
        part: 'changed scenes',
      },
      {
        arms: ['insulation-dual-questions-places', 'insulation-questions-places'],
        ...success,
        says: 'alike',
        part: 'scenes of training',
      },
      { arms: ['insulation-dual-places', 'knowledge-insulation-places'], ...changed, says: 'higher' },
      {
        arms: ['insulation-dual-questions-places', 'insulation-questions-places'],
        ...{ ...success, scenes: 'masked', says: 'higher' },
      },
      {
        arms: ['insulation-dual-questions-places', 'insulation-questions-places'],
        ...{ ...success, scenes: 'words', says: 'higher' },
      },
    ],
  },
  {
    ...{ number: '17', name: 'paraphrases', source: 'arXiv 2509.11417, table IV' },
    firstSeed: 3,
    limit: 'with places',
    says: 'Co-training does better with unseen paraphrases than augmented instructions.',
    here: "On knowledge insulation with places, co-training alone (C without S). The augmentation has sentence forms around every instruction; the test has forms that no training has. The paper's has strings as well. The test's verbs are in no training, and the augmentation changes none.",
    tests: [
      {
        arms: ['insulation-questions-places', 'insulation-paraphrased-places'],
        ...{ ...success, scenes: 'words', says: 'higher', part: 'success' },
      },
      {
        arms: ['insulation-questions-places', 'insulation-paraphrased-places'],
        ...{ measure: 'right object', margin: RATE, scenes: 'words', says: 'higher' },
      },
      {
        arms: ['insulation-paraphrased-places', 'knowledge-insulation-places'],
        ...{ ...success, scenes: 'words', says: 'higher' },
      },
    ],
  },
  {
    ...{ number: '18', name: 'features', source: 'arXiv 2509.11417, figure 4' },
    firstSeed: 3,
    limit: 'with places',
    says: 'With a frozen tower and co-training, features stay linearly separable.',
    here: "On knowledge insulation with places. Linear probes of colour and shape of the world's things, in place of five question sets and CIFAR-10. D's features before the first layer contain the frozen tower's, and are twice as wide, so that the tower decides nothing.",
    tests: [
      {
        arms: ['insulation-dual-questions-places', 'knowledge-insulation-places'],
        ...{ measure: 'probe of the last layer', margin: ERROR, says: 'higher', part: 'the last layer' },
      },
      {
        arms: ['insulation-questions-places', 'knowledge-insulation-places'],
        ...{ measure: 'probe of the last layer', margin: ERROR, says: 'higher' },
      },
      {
        arms: ['insulation-dual-questions-places', 'knowledge-insulation-places'],
        ...{ measure: 'probe of the tower', margin: ERROR, says: 'higher' },
      },
      {
        arms: ['insulation-dual-places', 'knowledge-insulation-places'],
        ...{ measure: 'probe of the tower', margin: ERROR, says: 'higher' },
      },
    ],
  },
];
