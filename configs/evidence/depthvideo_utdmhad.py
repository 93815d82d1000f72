# Depth-video students of UTD-MHAD: the matrix of the inertial ones. Some ten
# times as long.
_base_ = './inertial_utdmhad.py'
title = 'Evidence: depth-video students of UTD-MHAD'
names = dict(pair='depthvideo_utdmhad', network='c3d', target='depth')
notes = (
    'UTD-MHAD: 27 actions, 431 recordings of four people. Teacher: skeletons. '
    'Student: depth video of 12 frames. Subjects 1, 3 and 5 are the 323 '
    'unlabelled pairs and the labels that are drawn; 7 is the test. Settings '
    'were chosen with subjects 1 and 3 to learn from, judged on 5. Top-1 in '
    'percent, fine-tuning of all weights, 150 steps; chance is 3.7.')
sweeps = dict(_delete_=True)
