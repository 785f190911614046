/** The commands of `insula`; the module of a command is loaded on use. */
import type { Command } from './command.ts';

interface Listed {
  readonly summary: string;
  load(): Promise<Command>;
}

const tokenize = (name: 'report' | 'fit') => () => import('./tokenize.ts').then((own) => own[name]);
const tokenizeChunks = (name: 'encode' | 'decode') => () => import('./tokenize-chunks.ts').then((own) => own[name]);

export const commands: Readonly<Record<string, Listed>> = {
  devices: {
    summary: 'the adapters that can be opened, and why others cannot',
    load: () => import('./devices.ts').then(({ devices }) => devices),
  },
  train: {
    summary: 'trains a system on the built-in world or on a data set, measures it and writes a report',
    load: () => import('./train.ts').then(({ train }) => train),
  },
  pretrain: {
    summary: 'trains a vision-language model on questions about pictures',
    load: () => import('./pretrain.ts').then(({ pretrain }) => pretrain),
  },
  act: {
    summary: 'one predicted chunk of a trained policy, the demonstrated one, and the latency by part',
    load: () => import('./act.ts').then(({ act }) => act),
  },
  evaluate: {
    summary: 'a policy in closed loop or on held-out episodes, or what a vision-language model sees',
    load: () => import('./evaluate.ts').then(({ evaluate }) => evaluate),
  },
  serve: {
    summary: "a policy behind openpi's websocket protocol, for robots and for a page",
    load: () => import('./serve.ts').then(({ serve }) => serve),
  },
  study: {
    summary: "the papers' claims: runs over seeds, tests with intervals, and one page of verdicts",
    load: () => import('./study.ts').then(({ study }) => study),
  },
  systems: {
    summary: 'every system in a line; of one by name its tables, parameters and cost',
    load: () => import('./systems.ts').then(({ systemsCommand }) => systemsCommand),
  },
  data: {
    summary: 'what a data set holds: every field and what it becomes, episodes, times, instructions',
    load: () => import('./show-data.ts').then(({ showData }) => showData),
  },
  convert: {
    summary: 'writes a data set, or the built-in world, as LeRobot 3.0, or a checkpoint for acting alone',
    load: () => import('./convert.ts').then(({ convert }) => convert),
  },
  inspect: {
    summary: 'gradient flow and interference of the losses in a model, and the operations of its training step',
    load: () => import('./inspect.ts').then(({ inspect }) => inspect),
  },
  explore: {
    summary:
      'a page in your browser: kernels, attention, gradient flow, a step and action tokens, to see and to change',
    load: () => import('./explore.ts').then(({ explore }) => explore),
  },
  verify: {
    summary: 'every kernel and a training step on this adapter, compared with float64: what a bug report needs',
    load: () => import('./verify.ts').then(({ verifyCommand }) => verifyCommand),
  },
  'tokenize report': {
    summary: 'every kind of action tokenizer on held-out chunks: tokens, error, use of the vocabulary',
    load: tokenize('report'),
  },
  'tokenize fit': {
    summary: 'fits a tokenizer to the actions of a data set and writes it to a file',
    load: tokenize('fit'),
  },
  'tokenize encode': {
    summary: 'encodes the chunks of an episode, or of a JSON file, as ids',
    load: tokenizeChunks('encode'),
  },
  'tokenize decode': {
    summary: 'decodes ids to chunks, in the units of the data',
    load: tokenizeChunks('decode'),
  },
  bench: {
    summary: '--tune writes the tuning file of this adapter: its fastest kernel variants, which all commands then use',
    load: () => import('./bench-tune.ts').then(({ benchTune }) => benchTune),
  },
  'bench attention': {
    summary: 'attention variants, masks and directions, compared with matrix products and the arithmetic roof',
    load: () => import('./bench-attention.ts').then(({ benchAttention }) => benchAttention),
  },
  'bench kernels': {
    summary: "every op of a model's step, forward and backward: time, rates, percent of the roof, limiting resource",
    load: () => import('./bench-kernels.ts').then(({ benchKernels }) => benchKernels),
  },
  'bench step': {
    summary: 'training steps of several systems: rates, memory, time by kernel',
    load: () => import('./bench-step.ts').then(({ benchStep }) => benchStep),
  },
  'bench policy': {
    summary: 'the latency of acting by part, of every system: random weights, a chunk from an observation',
    load: () => import('./bench-policy.ts').then(({ benchPolicy }) => benchPolicy),
  },
  'bench stories': {
    summary: 'a small Llama language model fine-tuned on a text, as other engines publish it: time, losses, limits',
    load: () => import('./bench-stories.ts').then(({ benchStories }) => benchStories),
  },
  'bench data': {
    summary: 'training examples per second that a data set gives, without and with images',
    load: () => import('./bench-data.ts').then(({ benchData }) => benchData),
  },
  'bench roofline': {
    summary: "the adapter's arithmetic rate, bandwidth, launch and round-trip cost",
    load: () => import('./bench-roofline.ts').then(({ benchRoofline }) => benchRoofline),
  },
  'bench first-day': {
    summary:
      'everything that is to be known of a new adapter, within minutes: checks, tests, benchmarks, tuning, a training',
    load: () => import('./bench-first-day.ts').then(({ benchFirstDay }) => benchFirstDay),
  },
};
