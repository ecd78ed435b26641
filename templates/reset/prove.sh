# What the proof needs to know of a host beside its scan: each part begins with `== NAME`.
echo '== before'; cat "$KC/before" 2>/dev/null
echo '== manifest'; cut -f3- "$KC/manifest" 2>/dev/null
echo '== spared'; cat "$KC/spared" 2>/dev/null
echo '== begun'; cat "$KC/begun" 2>/dev/null
echo '== now'
