"""Writes and reads data sets with LeRobot itself, for lerobot-judge.test.ts.

write FOLDER        a set of version 3.0 with a video, an image feature, and three tasks
annotate FOLDER     adds LeRobot's columns of language and sub-tasks, and writes one row group for each episode
read FOLDER OUT     every frame as a training loader gives it: OUT.json, and OUT.bin with the pictures as bytes
"""

import json
import sys

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lerobot.datasets.io_utils import write_table_one_row_group_per_episode
from lerobot.datasets.language import language_feature_info
from lerobot.datasets.lerobot_dataset import LeRobotDataset

RATE = 10
LENGTHS = [12, 7, 9]


def picture(episode, step, shift):
    rows, columns = np.mgrid[0:48, 0:64]
    red = (4 * columns + 8 * step + shift) % 256
    return np.stack([red, 5 * rows, np.full_like(red, 40 * episode + 60)], -1).astype(np.uint8)


def write(folder):
    names = ["height", "width", "channels"]
    features = {
        "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "gripper"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "pressure": {"dtype": "float32", "shape": (1,), "names": None},
        "grid": {"dtype": "int64", "shape": (2, 3), "names": None},
        "observation.images.top": {"dtype": "video", "shape": (48, 64, 3), "names": names},
        "observation.images.wrist": {"dtype": "image", "shape": (48, 64, 3), "names": names},
    }
    dataset = LeRobotDataset.create("insula/judge", RATE, features, root=folder, robot_type="judge")
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            dataset.add_frame(
                {
                    "action": np.array([episode, step, step / 7], np.float32),
                    "observation.state": np.array([-step, episode / 3], np.float32),
                    "pressure": np.array([step * 0.5], np.float32),
                    "grid": np.arange(6, dtype=np.int64).reshape(2, 3) + step,
                    "observation.images.top": picture(episode, step, 0),
                    "observation.images.wrist": picture(episode, step, 100),
                    "task": "second half" if episode == 2 and step > 3 else f"task {episode % 2}",
                }
            )
        dataset.save_episode()
    dataset.finalize()


def annotate(folder):
    text = pa.string()
    fields = [("role", text), ("content", text), ("style", text), ("camera", text), ("tool_calls", pa.list_(text))]

    def row(style, content, **more):
        return {"role": "user", "style": style, "content": content, **more}

    path = Path(folder) / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    frames = table["frame_index"].to_pylist()
    aim = [row("task_aug", "do it", timestamp=0.0), row("task_aug", "go on", timestamp=0.0)]
    parts = [row("subtask", "reach", timestamp=0.0), row("plan", "a plan", timestamp=0.0), row("subtask", "grasp", timestamp=0.3)]
    persistent = [[] if episode == 1 else aim + parts for episode in table["episode_index"].to_pylist()]
    events = [[row("interjection", "wait")] if frame == 2 else [] for frame in frames]
    lists = [pa.list_(pa.struct([*fields, ("timestamp", pa.float32())])), pa.list_(pa.struct(fields))]
    table = table.append_column("language_persistent", pa.array(persistent, lists[0]))
    table = table.append_column("language_events", pa.array(events, lists[1]))
    table = table.append_column("subtask_index", pa.array(np.array(frames) // 5))
    write_table_one_row_group_per_episode(table, path)
    pd.DataFrame({"subtask_index": [0, 1, 2]}, pd.Index(["a", "b", "c"], name="subtask")).to_parquet(
        Path(folder) / "meta/subtasks.parquet"
    )
    info = json.loads((Path(folder) / "meta/info.json").read_text())
    number = {"dtype": "int64", "shape": [1], "names": None}
    info["features"].update({**language_feature_info(), "subtask_index": number})
    (Path(folder) / "meta/info.json").write_text(json.dumps(info))


def read(folder, out):
    dataset = LeRobotDataset("insula/judge", root=folder, return_uint8=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, shuffle=False)
    frames = []
    with open(f"{out}.bin", "wb") as pictures:
        for item in loader:
            frame = {"task": item["task"][0]}
            for key in dataset.meta.camera_keys:
                own = item[key][0]
                if own.dtype != torch.uint8:
                    own = (own * 255).round().to(torch.uint8)
                pictures.write(own.permute(1, 2, 0).contiguous().numpy().tobytes())
                frame[key] = [own.shape[1], own.shape[2]]
            for key in ["action", "observation.state", "timestamp", "episode_index", "frame_index"]:
                frame[key] = item[key].flatten().tolist()
            frames.append(frame)
    with open(f"{out}.json", "w") as file:
        json.dump({"cameras": dataset.meta.camera_keys, "frames": frames}, file)


if __name__ == "__main__":
    {"write": write, "annotate": annotate, "read": read}[sys.argv[1]](*sys.argv[2:])
