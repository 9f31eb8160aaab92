"""Every example says what the table in examples/README.md says, has what makes a job safe, and is short."""

import pathlib
import re
import sys

root = pathlib.Path("examples")
sources = re.findall(r"\]\(([\w/.-]+)\)", (root / "README.md").read_text())
rows = re.findall(r"^\| `([a-z]+)` \| ([^|]+) \| ([^|;]+?)[;|]", (root / "README.md").read_text(), re.M)
needed = ["orrelation", "amq.rabbitmq.reply-to", "imestamp", "xpiration", "20", "35", "TimeAlive", "andatory",
          "MayBeDuplicate", "RetryAfter", "One code more may come: enter the newest.", "login-<session>-<n>", "AMQP_URL"]
wrong = [] if len(rows) == 7 and len(sources) == 8 else [f"README: {len(rows)} outcomes, {len(sources)} examples"]
for source in sources:
    text = (root / source).read_text()
    if source.endswith("main.go") or source.endswith(".java"):  # the flag has no name there
        text += "mandatory" * ('"otp.jobs", true' in text)
    for outcome, tell, resend in rows:
        # Rust has two outcomes in one line.
        line = next((line for line in text.splitlines() if outcome in line and tell in line), "")
        if resend.strip() not in line:
            wrong.append(f"{source}: {outcome}: not what README.md says: {line.strip()}")
    wrong += [f"{source}: has no {word}" for word in needed if word not in text]
    code = re.sub(r'^\w*"""(?s:.*?)"""|^import \((?s:.*?)\)', "", text, flags=re.M).splitlines()
    code = [line for line in code if not re.match(r"\s*(#|//|import |from \w+ import|using \w+[.\w]*;|use |package |<\?php|$)", line)
            and not any(tell in line for _, tell, _ in rows)]
    if len(code) >= 40:
        wrong.append(f"{source}: {len(code)} lines of code: 39 at most")
print("\n".join(f"WRONG {line}" for line in wrong) or f"ok    {len(sources)} examples: the words of README.md, and short")
sys.exit(bool(wrong))
