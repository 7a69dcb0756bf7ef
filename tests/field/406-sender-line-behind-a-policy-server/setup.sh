cat > $WORK/policy <<'E'
#!/usr/bin/python3
import sys
a = {}
for line in sys.stdin:
    line = line.rstrip("\n")
    if line:
        k, _, v = line.partition("="); a[k] = v
    else:
        to = a.get("recipient", "")
        print("action=" + ("FILTER smtp:[smtp-relay-partner.internal]:587" if to.endswith("@partner.example") else "DUNNO") + "\n", flush=True)
        a = {}
E
chmod 755 $WORK/policy
