import { useEffect, useRef } from 'preact/hooks';
import type { Image } from '../../../model/data/dataset.ts';
import type { PatchMap } from '../../../model/inspect/attention-maps.ts';
import type { PicturePlace } from '../../../model/policy/subtask.ts';

/** A picture, enlarged without smoothing, with weights over its patches and paths in shares of its height and width. */
export function Scene(props: {
  label: string;
  image?: Image;
  paths?: readonly (readonly PicturePlace[])[];
  patches?: PatchMap;
}) {
  const { label, image, paths = [], patches } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (!image) return;
    const { width, height, pixels } = image;
    const drawn = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) drawn.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    canvas.current!.getContext('2d')!.putImageData(drawn, 0, 0);
  }, [image]);
  return (
    <div class="flow-scene">
      <canvas ref={canvas} role="img" aria-label={label} width={image?.width ?? 64} height={image?.height ?? 64} />
      <svg viewBox="0 0 100 100" aria-hidden="true">
        {patches && <Patches {...patches} />}
        {paths[0]?.map(([down, across], i) => (
          <circle key={i} cx={100 * across} cy={100 * down} r="1.5" fill="var(--line1)" />
        ))}
        {paths.map((path, i) => (
          <polyline
            key={i}
            points={path.map(([down, across]) => `${100 * across},${100 * down}`).join(' ')}
            fill="none"
            stroke={`var(--line${i + 1})`}
            stroke-width={i === 0 ? 0.8 : 1.1}
            stroke-dasharray={i === 0 ? undefined : '2.5 1.5'}
          />
        ))}
      </svg>
    </div>
  );
}

/** Covers what is not looked at: the patch with the most attention is left as it is. */
function Patches({ down, across, values }: PatchMap) {
  const largest = Math.max(1e-9, ...values);
  const [height, width] = [100 / down, 100 / across];
  return (
    <>
      {Array.from(values, (value, i) => (
        <rect
          key={i}
          x={(i % across) * width}
          y={Math.floor(i / across) * height}
          {...{ width, height }}
          fill="#0b1a33"
          fill-opacity={0.85 * (1 - value / largest)}
        >
          <title>{`${(100 * value).toPrecision(2)} % of the attention`}</title>
        </rect>
      ))}
    </>
  );
}
