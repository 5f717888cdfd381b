"""A store of results written by hand, for the tests of reports."""

import json

TRAIN = {"lr": 0.001, "sampler": "own", "l2_negatives": True}


def cell(loss, seed=0, *, dataset="yelp2018", backbone="mf", selection="valid", **fields):
    identity = {"dataset": dataset, "backbone": backbone, "loss": loss, "seed": seed}
    train = {} if backbone == "reference" else TRAIN
    cell = identity | {"selection": selection} | train | fields
    return {"id": "-".join(map(str, cell.values())), **cell}


def popularity(seed=0, **fields):
    return cell("popularity", seed, backbone="reference", **fields)


def write(
    results,
    scored,
    *,
    grid="trial",
    unfinished=(),
    failed=None,
    repeat=1,
    valid=None,
    groups=None,
    curves=None,
):
    """Write a store by hand: `scored` pairs cells with {metric: value} on test.

    By the id of a run: `valid` has its values on valid, `groups` {group: value} of each metric, and
    `curves` rows of (epoch, loss, recall, ndcg, seconds).
    """
    failed = failed or {}
    folder = results / grid
    folder.mkdir(parents=True)
    cells = [c for c, _ in scored] + list(unfinished)
    lines = [f'name = "{grid}"', 'primary = "Recall@20"']
    for c in cells:
        lines += ["[[cells]]", *(f"{key} = {json.dumps(value)}" for key, value in c.items())]
    (folder / "grid.toml").write_text("\n".join(lines))
    rows = ["run_id,dataset,split,metric,k,group,value"]
    for c, values in scored:
        for name, value in values.items():
            metric, k = name.split("@")
            line = f"{c['id']},{c['dataset']},{{}},{metric},{k},{{}},{{}}"
            rows += [line.format("test", "", value)] * repeat
            rows.append(line.format("valid", "", (valid or {}).get(c["id"], 0.9)))
            for group, part in (groups or {}).get(c["id"], {3: 0.9}).items():
                rows.append(line.format("test", group, part))
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    rows = ["run_id,status,dataset,fingerprint,protocol,device,cpu,threads,bslbench,torch,revision"]
    for c in cells:
        start = f"{c['id']},{{}},{c['dataset']},{'0123456789abcdef' * 4},1,cpu,"
        if c in unfinished:
            rows.append(start.format("failed" if c["id"] in failed else "missing") + ",,,,")
        else:
            rows.append(start.format("finished") + "Some CPU,2,0.1.0,2.13.0,abc123")
    (folder / "runs.csv").write_text("\n".join(rows) + "\n")
    for run_id, reason in failed.items():
        if reason:
            (results / "runs" / run_id).mkdir(parents=True)
            content = json.dumps({"reason": reason, "traceback": "..."})
            (results / "runs" / run_id / "failure.json").write_text(content)
    for run_id, points in (curves or {}).items():
        (results / "runs" / run_id).mkdir(parents=True, exist_ok=True)
        lines = ["epoch,loss,recall,ndcg,seconds", *(",".join(map(str, p)) for p in points)]
        (results / "runs" / run_id / "curve.csv").write_text("\n".join(lines) + "\n")


def seeds(values, loss, **fields):
    return [
        (cell(loss, seed, **fields), {"Recall@20": v, "NDCG@20": float(v) / 2})
        for seed, v in enumerate(values)
    ]
