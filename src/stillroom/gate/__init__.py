"""The gate: does the student keep the teacher's quality, and how sure is that?"""
