import type { ComponentType } from 'preact';
import type { Adapter } from './device.ts';

interface Section {
  readonly id: string;
  readonly title: string;
  /** The question that the section answers. */
  readonly question: string;
  /** It shows without WebGPU, too. */
  readonly needsNoAdapter?: true;
  load(): Promise<ComponentType<{ adapter: Adapter }>>;
}

/** The sections of the page, in the order of the menu. */
export const sections: readonly Section[] = [
  {
    id: 'kernels',
    title: 'Kernels',
    question: 'What does a kernel compute, forward and backward, is its gradient right, and what limits it here?',
    load: () => import('./kernels/section.tsx').then(({ KernelsSection }) => KernelsSection),
  },
  {
    id: 'attention',
    title: 'Attention workbench',
    question: 'Who sees whom, where does gradient pass, and what does a stop save?',
    load: () => import('./attention/section.tsx').then(({ AttentionSection }) => AttentionSection),
  },
  {
    id: 'flow',
    title: 'Gradient flow',
    question: 'Which loss reaches which weight, and what happens to a policy if an edge is cut?',
    load: () => import('./flow/section.tsx').then(({ FlowSection }) => FlowSection),
  },
  {
    id: 'step',
    title: 'A step',
    question: 'What does one training step run, in which order, and where does its memory lie?',
    load: () => import('./step/section.tsx').then(({ StepSection }) => StepSection),
  },
  {
    id: 'tokens',
    title: 'Actions as tokens',
    question: 'How does a chunk of actions become tokens, and what is lost on the way?',
    needsNoAdapter: true,
    load: () => import('./tokens/section.tsx').then(({ TokensSection }) => TokensSection),
  },
];
