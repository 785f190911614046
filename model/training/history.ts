/** What a run has measured so far; kept in the checkpoint, drawn in the report. Plain JSON. */
export interface RunHistory {
  training: { step: number; tokenLoss?: number; flowLoss?: number; seconds: number }[];
  /** tokenLoss is of robot data alone, answerLoss of vision-language examples. */
  heldOut: { step: number; tokenLoss?: number; flowLoss?: number; answerLoss?: number }[];
  gradients: { step: number; loss: 'token' | 'flow'; group: string; norm: number }[];
  baselines: { unigram?: number; constantVelocity?: number };
}

export function emptyHistory(): RunHistory {
  return { training: [], heldOut: [], gradients: [], baselines: {} };
}
