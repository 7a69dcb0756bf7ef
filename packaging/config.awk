# Makes the configuration that packages install of config.example.toml: every setting of the first credential gets a #, as
# the other settings that are off have one. So nothing is watched before somebody has said what.
/^# ---- A credential / { off = 1 }
off && /^[^#[:space:]]/ { $0 = "#" $0 }
{ print }
