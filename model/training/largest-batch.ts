import { type ModelConfiguration, tokensPerImage } from '../architecture/configuration.ts';

/** The largest batch whose largest activation, in f32, fits a binding of `bytes`. */
export function largestBatch({ blocks, backbone, expert, vision }: ModelConfiguration, bytes: number): number {
  const rows = (weights: string) =>
    blocks.reduce((sum, block) => sum + (block.weights === weights ? block.length : 0), 0);
  const widest = Math.max(
    rows('backbone') * Math.max(backbone.width, backbone.hidden),
    expert ? rows('expert') * Math.max(expert.width, expert.hidden) : 0,
    vision ? vision.cameras * vision.imageHeight * vision.imageWidth * 3 : 0,
    vision ? vision.cameras * tokensPerImage(vision) * vision.hidden : 0,
  );
  return Math.floor(bytes / (4 * widest));
}
